-- Extends the lease of a claim.
-- KEYS  1 schedule  2 batch
-- ARGV  1 batch_id  2 token  3 lease_ms
-- Verdicts  'OK'  'STALE'
--@include _clock
--@include _fence
--@include _room
local schedule, batch = KEYS[1], KEYS[2]
local id, token, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
if not holds(batch, token) then
  return 'STALE'
end
go_on_when_full(batch)
redis.call('ZADD', schedule, 'XX', now_ms() + lease, id)
return 'OK'
