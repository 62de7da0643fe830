-- Stores that the record of a claimed batch cannot be read. It is looked at again after a delay, as another worker may
-- be able to; once that has lasted longer than patience, the claim is kept for its callers to be told.
-- KEYS  1 schedule  2 batch
-- ARGV  1 batch_id  2 token  3 delay_ms  4 patience_ms
-- Verdicts  'OK' it will be looked at again  'OVER' patience is over  'STALE'
--@include _clock
--@include _fence
--@include _room
local schedule, batch = KEYS[1], KEYS[2]
local id, token, delay, patience = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
if not holds(batch, token) then
  return 'STALE'
end
local now = now_ms()
go_on_when_full(batch)
local since = tonumber(redis.call('HGET', batch, 'unreadable_since') or '') or now
if now - since >= patience then
  return 'OVER'
end
let_go(batch, schedule, id, now + delay)
redis.call('HSET', batch, 'unreadable_since', string.format('%d', since))
return 'OK'
