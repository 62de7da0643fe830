-- Stores what a look at a running batch showed and when to look again, and how far its early results were read.
-- KEYS  1 schedule  2 batch
-- ARGV  1 batch_id  2 token  3 status: the provider's word  4 n_done  5 n_total  6 delay_ms
--       7 early: how far early results were read (JSON), or ''
--       8 listed: the provider showed a list that the batch is in, not the batch itself
--       9 cancel_asked: the provider was just asked to cancel the batch
--       10 why it is still waited for, or '' for no special reason
-- Verdicts  'OK'  'STALE'
--@include _clock
--@include _fence
--@include _moved
--@include _room
local schedule, batch = KEYS[1], KEYS[2]
local id, token, status, n_done, n_total, delay = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local early, itself, asked, why = ARGV[7], ARGV[8] ~= '1', ARGV[9] == '1', ARGV[10] or ''
if not holds(batch, token) or redis.call('HGET', batch, 'state') ~= 'submitted' then
  return 'STALE'
end
local now = now_ms()
go_on_when_full(batch)
local before = redis.call('HGET', batch, 'provider_status') or ''
redis.call('HSET', batch, 'provider_status', status, 'n_done', n_done, 'n_total', n_total, 'updated_at', now,
  'n_stumbles', 0)
redis.call('HDEL', batch, 'denied_since', 'n_denied')
if why ~= '' then
  redis.call('HSET', batch, 'error', why)
else
  redis.call('HDEL', batch, 'error')
end
if asked then
  redis.call('HINCRBY', batch, 'n_cancels', 1)
  redis.call('HSETNX', batch, 'cancel_at', now)
  redis.call('HSET', batch, 'cancel_asked_at', now)
  add_to_timeline(batch, now, 'the provider was asked to cancel it')
end
if itself then
  redis.call('HSET', batch, 'confirmed_at', now)
end
if early ~= '' then
  redis.call('HSET', batch, 'early', early)
end
let_go(batch, schedule, id, now + delay)
if status ~= before then
  add_to_timeline(batch, now, 'the provider says ' .. status)
end
if why ~= '' then
  add_to_timeline(batch, now, 'waits: ' .. why)
end
return 'OK'
