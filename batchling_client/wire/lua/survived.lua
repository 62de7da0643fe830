-- A worker outlived a step without ending its claim: it was stopped past its lease, or Redis was away. The step is no
-- longer held against the batch; a claim that is still its own ends, and a quarantine that rested on it is lifted.
-- KEYS  1 schedule  2 batch
-- ARGV  1 batch_id  2 token of the step
-- Verdicts  'OK'  'STALE' nothing is held against the batch because of this step
--@include _clock
--@include _fence
--@include _room
--@include _unended
local schedule, batch = KEYS[1], KEYS[2]
local id, token = ARGV[1], ARGV[2]
go_on_when_full(batch)
if holds(batch, token) and redis.call('HGET', batch, 'begun') == token then
  strike(batch, token)
  let_go(batch, schedule, id, now_ms())
  return 'OK'
end
if not strike(batch, token) then
  return 'STALE'
end
if redis.call('HDEL', batch, 'quarantined_at') == 1 then
  redis.call('HDEL', batch, 'error')
  redis.call('ZADD', schedule, now_ms(), id)
end
return 'OK'
