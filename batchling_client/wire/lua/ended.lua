-- Stores how a batch ended, at the provider or before it got there; its results are due for collection at once.
-- A batch that has ended may end once more, when its results cannot be had: its callers are then told why.
-- KEYS  1 schedule  2 batch
-- ARGV  1 batch_id  2 token  3 outcome  4 status: the provider's word  5 ending (JSON: result references, the provider's
--       reason)  6 error in one sentence, or ''
-- Verdicts  'OK'  'STALE'
-- States  sealed, submitting, submitted -> ended
--@include _clock
--@include _fence
--@include _moved
--@include _room
local schedule, batch = KEYS[1], KEYS[2]
local id, token, outcome, status, ending, err = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local state = redis.call('HGET', batch, 'state')
local live = state == 'sealed' or state == 'submitting' or state == 'submitted' or state == 'ended'
if not holds(batch, token) or not live then
  return 'STALE'
end
local now = now_ms()
go_on_when_full(batch)
redis.call('HSET', batch, 'state', 'ended', 'outcome', outcome, 'provider_status', status, 'ending', ending,
  'ended_at', now, 'updated_at', now, 'n_stumbles', 0)
redis.call('HDEL', batch, 'collected_at', 'denied_since', 'n_denied', 'unread_since', 'held_since', 'n_unread')
if err ~= '' then
  redis.call('HSET', batch, 'error', err)
else
  redis.call('HDEL', batch, 'error')
end
let_go(batch, schedule, id, now)
moved(batch, now, 'ended: ' .. outcome .. (err ~= '' and ', ' .. err or ''))
return 'OK'
