-- Stores that every result file of an ended batch was read to its end; it is due for settling at once.
-- KEYS  1 schedule  2 batch
-- ARGV  1 batch id  2 token
-- Verdicts  'OK'  'STALE'
--@include _clock
--@include _fence
--@include _room
local schedule, batch = KEYS[1], KEYS[2]
local id, token = ARGV[1], ARGV[2]
if not holds(batch, token) or redis.call('HGET', batch, 'state') ~= 'ended' then
  return 'STALE'
end
local now = now_ms()
go_on_when_full(batch)
redis.call('HSET', batch, 'collected_at', now, 'updated_at', now)
let_go(batch, schedule, id, now)
return 'OK'
