-- Makes a waiting or quarantined batch due now; its quarantine, stumbles and unended steps are forgotten.
-- KEYS  1 schedule  2 batch  3 circuit(account) that sees the batch, which is forgotten: a key may have been put right
-- ARGV  1 batch_id  2 by: who retries it, for the timeline
-- Verdicts  'OK'  'BUSY' a step is under way  'TOO_LATE' it is terminal  'GONE' no such batch
--@include _clock
--@include _fence
--@include _moved
--@include _room
local schedule, batch, circuit = KEYS[1], KEYS[2], KEYS[3]
local id = ARGV[1]
local state = redis.call('HGET', batch, 'state')
if not state then
  return 'GONE'
end
local due = redis.call('ZSCORE', schedule, id)
local quarantined = redis.call('HEXISTS', batch, 'quarantined_at') == 1
if not due and not quarantined then
  return 'TOO_LATE'
end
local now = now_ms()
if due and tonumber(due) > now and redis.call('HGET', batch, 'begun') == redis.call('HGET', batch, 'token') then
  -- What it does may be a create on its way, which must keep its token.
  return 'BUSY'
end
go_on_when_full(batch)
if quarantined then
  redis.call('HDEL', batch, 'quarantined_at', 'error')
end
redis.call('HSET', batch, 'n_stumbles', 0, 'updated_at', now)
-- A held batch is read several times once more.
redis.call('HDEL', batch, 'unread_since', 'n_unread')
redis.call('UNLINK', circuit)
let_go(batch, schedule, id, now)
moved(batch, now, (quarantined and 'taken out of quarantine by ' or 'made due by ') .. ARGV[2])
return 'OK'
