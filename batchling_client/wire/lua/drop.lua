-- Drops requests of a batch that no provider was told of, and tells their callers; a request for which anybody else
-- waits too is left alone. A batch that holds nothing else any more ends at once, quarantined or not.
-- KEYS  1 schedule  2 batch  3 lane; then for each of mailboxes: mailbox; then for each of request_ids: request, result
-- ARGV  1 batch_id  2 packed result, the same for each  3 keep_ms of results  4 mail_ms: how long a mailbox is kept
--       5 notice_prefix  6 ending (JSON) of a batch that ends  7 error in one sentence of a batch that ends
--       8 n_mailboxes; then for each of mailboxes, those whose requests may be dropped; then for each of request_ids
-- Verdicts  {'OK', n dropped, n left because others wait, 1 = the batch has ended}
--       {'TOO_LATE'} it is open or sealed no more, or another run of Redis had opened it, so that a provider may have been
--       told: nothing was done  {'GONE'} no such batch
-- States  open, sealed -> ended
--@include _clock
--@include _fence
--@include _moved
--@include _room
--@include _server
--@include _sound
--@include _request
--@include _counts
--@include _mail
local schedule, batch, lane = KEYS[1], KEYS[2], KEYS[3]
local id, packed, keep_ms, mail_ms, channel_prefix = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local ending, err, n_mailboxes = ARGV[6], ARGV[7], tonumber(ARGV[8])
local first_key, first_arg = 3 + n_mailboxes, 8 + n_mailboxes

local state = redis.call('HGET', batch, 'state')
if not state then
  return {'GONE'}
end
if state ~= 'open' and state ~= 'sealed' or may_be_forgotten(batch) then
  return {'TOO_LATE'}
end
local mail = mail_to(n_mailboxes, 3, 8)
go_on_when_full(batch)
local n_dropped, n_shared = 0, 0
for i = 1, #ARGV - first_arg do
  local request, result, request_id = KEYS[first_key + 2 * i - 1], KEYS[first_key + 2 * i], ARGV[first_arg + i]
  local owner, attempt, waiting = flight(request)
  if owner == id then
    local others = some_left_out(waiting)
    for _, name in ipairs(names(waiting)) do
      others = others or not mail[name]
    end
    if others then
      n_shared = n_shared + 1
    else
      tell(mail, waiting, request_id)
      redis.call('SET', result, packed, 'PX', keep_ms)
      withdrawn(request, batch, owner, attempt)
      leave_runs(waiting, batch, id, request)
      n_dropped = n_dropped + 1
    end
  end
end
if n_dropped == 0 then
  return {'OK', 0, n_shared, 0}
end

local now, ended = now_ms(), 0
redis.call('HSET', batch, 'updated_at', now)
if count(batch, 'n_dropped', n_dropped) == tonumber(redis.call('HGET', batch, 'n_requests')) then
  if redis.pcall('HGET', lane, 'open') == id then
    redis.call('HDEL', lane, 'open')
  end
  redis.call('HSET', batch, 'state', 'ended', 'outcome', 'cancelled', 'provider_status', '', 'ending', ending,
    'error', err, 'cancel_requested', 1, 'ended_at', now)
  redis.call('HDEL', batch, 'quarantined_at', 'denied_since', 'n_denied')
  let_go(batch, schedule, id, now)
  moved(batch, now, 'ended: all its requests were cancelled')
  ended = 1
end
send(mail, mail_ms, channel_prefix)
return {'OK', n_dropped, n_shared, ended}
