-- Stores the provider's id of a created batch; its first look is due after a delay.
-- KEYS  1 schedule  2 batch
-- ARGV  1 batch_id  2 token  3 provider_batch_id  4 delay_ms  5 account that sees the batch, a digest
-- Verdicts  {'OK'}  {'STALE', provider batch id in force or ''}
-- States  submitting -> submitted
--@include _clock
--@include _fence
--@include _moved
--@include _room
local schedule, batch = KEYS[1], KEYS[2]
local id, token, provider_batch_id, delay, account = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
if not holds(batch, token) or redis.call('HGET', batch, 'state') ~= 'submitting' then
  return {'STALE', redis.call('HGET', batch, 'provider_batch_id') or ''}
end
local now = now_ms()
go_on_when_full(batch)
redis.call('HSET', batch, 'state', 'submitted', 'provider_batch_id', provider_batch_id, 'submitted_at', now,
  'updated_at', now, 'n_stumbles', 0, 'account', account)
redis.call('HDEL', batch, 'error', 'denied_since', 'n_denied')
let_go(batch, schedule, id, now + delay)
moved(batch, now, 'submitted: the provider calls it ' .. provider_batch_id)
return {'OK'}
