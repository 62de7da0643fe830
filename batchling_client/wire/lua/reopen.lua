-- Reopens a batch that is over, so that its results are read once more; the provider runs nothing again. The batch must
-- have been submitted and have left requests without an answer.
-- KEYS  1 schedule  2 batch  3 unanswered
-- ARGV  1 batch_id  2 terminal: the terminal states, comma separated  3 keep_ms
--       4 by: who reopens it, for the timeline
-- Verdicts  'OK'  'TOO_LATE' there is nothing to read again  'BUSY' it is not over  'GONE' no such batch
-- States  settled, failed, cancelled -> submitted
--@include _clock
--@include _fence
--@include _moved
--@include _room
local schedule, batch, unanswered = KEYS[1], KEYS[2], KEYS[3]
local id, terminal, keep_ms = ARGV[1], ',' .. ARGV[2] .. ',', ARGV[3]
local state = redis.call('HGET', batch, 'state')
if not state then
  return 'GONE'
end
if not string.find(terminal, ',' .. state .. ',', 1, true) then
  return 'BUSY'
end
local known = redis.call('HGET', batch, 'provider_batch_id') or ''
if known == '' or redis.call('EXISTS', unanswered) == 0 then
  return 'TOO_LATE'
end
local now = now_ms()
go_on_when_full(batch)
redis.call('HDEL', batch, 'settled_at', 'ended_at', 'collected_at', 'outcome', 'ending', 'error', 'denied_since',
  'n_denied', 'cancel_requested', 'cancel_at', 'cancel_again', 'cancel_asked_at', 'n_cancels', 'unread_since', 'held_since',
  'n_unread', 'early', 'quota', 'adopted')
redis.call('HSET', batch, 'state', 'submitted', 'reopened_at', now, 'n_stumbles', 0, 'updated_at', now)
redis.call('PEXPIRE', batch, keep_ms)
redis.call('PEXPIRE', unanswered, keep_ms)
let_go(batch, schedule, id, now)
moved(batch, now, 'reopened by ' .. ARGV[4] .. ', so that its results are read once more')
return 'OK'
