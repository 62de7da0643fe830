-- Closes an open batch for ever to new requests; it is due for submission at once. Nothing is moved.
-- KEYS  1 schedule  2 batch  3 lane
-- ARGV  1 batch_id  2 token
-- Verdicts  'OK'  'STALE'
-- States  open -> sealed
--@include _clock
--@include _fence
--@include _server
--@include _sound
--@include _moved
--@include _lane
--@include _room
local schedule, batch, lane = KEYS[1], KEYS[2], KEYS[3]
local id, token = ARGV[1], ARGV[2]
if not holds(batch, token) or redis.call('HGET', batch, 'state') ~= 'open' then
  return 'STALE'
end
go_on_when_full(batch)
close_batch(lane, batch, schedule, id, now_ms(), 'no more calls came')
redis.call('HSET', batch, 'missed', 0)
return 'OK'
