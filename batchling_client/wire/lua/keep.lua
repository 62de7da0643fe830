-- Remembers requests that an ended batch settles without an answer of its provider's, so that `batchling retry` can read
-- the batch again for as long as the provider keeps it.
-- KEYS  1 batch  2 unanswered
-- ARGV  1 token  2 keep_ms  3 n_request_ids; then for each of request_ids
-- Verdicts  'OK'  'STALE'
--@include _fence
--@include _room
--@include _sound
local batch, unanswered = KEYS[1], KEYS[2]
local token, keep_ms, n = ARGV[1], ARGV[2], tonumber(ARGV[3])
if not holds(batch, token) or redis.call('HGET', batch, 'state') ~= 'ended' then
  return 'STALE'
end
go_on_when_full(batch)
if not of_type(unanswered, 'set') then
  redis.call('UNLINK', unanswered)
end
for i = 1, n do
  redis.call('SADD', unanswered, ARGV[3 + i])
end
redis.call('PEXPIRE', unanswered, keep_ms)
return 'OK'
