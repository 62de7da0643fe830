-- Puts unanswered requests of a reopened batch back in flight in it; callers that make the same request again join.
-- A request that is in flight elsewhere, or has a success by now, is left alone; a stored failure is dropped.
-- A request that was withdrawn from an open batch is in flight nowhere: it is adopted, and the batch with its row is closed.
-- KEYS  1 schedule  2 lane  3 batch; then for each of request_ids: request, result
-- ARGV  1 token  2 batch_id  3 attempt that a request stands for: its last  4 keep_ms  5 last: no more follow
-- Verdicts  'OK'  'STALE'
-- States  open -> sealed
--@include _clock
--@include _fence
--@include _server
--@include _sound
--@include _moved
--@include _lane
--@include _recount
--@include _room
--@include _request
local schedule, lane, batch = KEYS[1], KEYS[2], KEYS[3]
local token, id, attempt, keep_ms, last = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5] == '1'
if not holds(batch, token) or redis.call('HGET', batch, 'state') ~= 'submitted' then
  return 'STALE'
end
go_on_when_full(batch)
local n_adopted = 0
for i = 4, #KEYS, 2 do
  local request, result = KEYS[i], KEYS[i + 1]
  local flying_in, _, _, left = flight(request)
  if not flying_in and redis.pcall('GETRANGE', result, 0, 0) ~= '+' then
    if left then
      leave_row(lane, batch_key(batch, id, left), schedule, left, now_ms())
    end
    put(request, id, attempt, '', keep_ms)
    redis.call('UNLINK', result)
    n_adopted = n_adopted + 1
  end
end
recount(batch, n_adopted)
if last then
  redis.call('HSET', batch, 'adopted', 1)
end
return 'OK'
