-- Stores why a claimed batch waits while its step is at work, or that nothing holds its step up any more. The end of the
-- claim, and the next claim, delete it.
-- KEYS  1 batch
-- ARGV  1 token  2 why, in one sentence, or ''
-- Verdicts  'OK'  'STALE'
--@include _clock
--@include _fence
local batch, token, why = KEYS[1], ARGV[1], ARGV[2]
if not holds(batch, token) then
  return 'STALE'
end
if why ~= '' then
  redis.call('HSET', batch, 'silence', why, 'updated_at', now_ms())
elseif redis.call('HDEL', batch, 'silence') > 0 then
  redis.call('HSET', batch, 'updated_at', now_ms())
end
return 'OK'
