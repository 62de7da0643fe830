-- Puts requests back in flight in a reopened batch that it had ended without an answer to; who asks for one of them joins.
-- One that is in flight elsewhere, or answered with a success by now, is left alone; a failure that is stored is dropped.
-- KEYS  1 batch; then for each request: request, result
-- ARGV  1 token  2 batch id  3 the attempt that a request stands for: its last  4 keep ms  5 '1' = no more follow
-- Verdicts  'OK'  'STALE'
--@include _fence
--@include _room
--@include _sound
local batch = KEYS[1]
local token, id, attempt, keep_ms, last = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5] == '1'
if not holds(batch, token) or redis.call('HGET', batch, 'state') ~= 'submitted' then
  return 'STALE'
end
go_on_when_full(batch)
local n_adopted = 0
for i = 2, #KEYS, 2 do
  local request, result = KEYS[i], KEYS[i + 1]
  if not word(request) and redis.pcall('GETRANGE', result, 0, 0) ~= '+' then
    redis.call('SET', request, id .. '|' .. attempt .. '|', 'PX', keep_ms)
    redis.call('UNLINK', result)
    n_adopted = n_adopted + 1
  end
end
-- They were counted as failed, or as moved on.
for _, field in ipairs({'n_failed', 'n_requeued'}) do
  local counted = math.max(0, tonumber(redis.call('HGET', batch, field) or '') or 0)
  local n = math.min(counted, n_adopted)
  if n > 0 then
    count(batch, field, -n)
    n_adopted = n_adopted - n
  end
end
if last then
  redis.call('HSET', batch, 'adopted', 1)
end
return 'OK'
