-- Requests the cancellation of a batch. A batch that was not submitted ends at once; a submitted batch is due now, to be
-- cancelled at its provider, unless a step of its submission is under way. A quarantined batch is tried again, unless it
-- has ended or its cancellation was requested before: then it ends at once without results, and its callers get an error.
-- A held batch ends so, too, as its results cannot be read.
-- Requested again after half a minute, a cancellation that the provider has not confirmed ends the batch here at its next
-- step. A batch that another run of Redis opened is closed and first searched for at its provider, which may have it.
-- With `alone`, it does that only if every request that is open in the batch is among the given ones, and nobody but the
-- given mailboxes waits for these.
-- KEYS  1 schedule  2 batch  3 lane; then for each of request_ids: request
-- ARGV  1 batch_id  2 ending (JSON) for a batch that ends at once  3 error in one sentence  4 alone
--       5 mailboxes, comma separated  6 by: who cancels it, for the timeline
-- Verdicts  'OK'  'TOO_LATE' it has ended already  'GONE' no such batch
--       'JOINED' others wait for a request in it: nothing was done
-- States  open -> sealed  open, sealed, submitting, submitted -> ended
--@include _clock
--@include _fence
--@include _server
--@include _sound
--@include _moved
--@include _lane
--@include _room
--@include _request
local schedule, batch, lane = KEYS[1], KEYS[2], KEYS[3]
local id, ending, err = ARGV[1], ARGV[2], ARGV[3]
local state = redis.call('HGET', batch, 'state')
if not state then
  return 'GONE'
end
if ARGV[4] == '1' then
  local own, n_own = {}, 0
  for _, name in ipairs(names(ARGV[5])) do
    own[name] = true
  end
  for i = 4, #KEYS do
    local owner, _, waiting = flight(KEYS[i])
    if owner == id then
      if some_left_out(waiting) then
        return 'JOINED'
      end
      for _, name in ipairs(names(waiting)) do
        if not own[name] then
          return 'JOINED'
        end
      end
      n_own = n_own + 1
    end
  end
  local n_open = 0
  for i, n in ipairs(redis.call('HMGET', batch, 'n_requests', 'n_succeeded', 'n_failed', 'n_requeued', 'n_dropped')) do
    n_open = n_open + (i == 1 and 1 or -1) * (tonumber(n or '') or 0)
  end
  if n_open > n_own then
    return 'JOINED'
  end
  if redis.call('HGET', batch, 'cancel_requested') == '1' and redis.call('HEXISTS', batch, 'quarantined_at') == 0 then
    return 'OK'
  end
end
local now = now_ms()
go_on_when_full(batch)
local quarantined = redis.call('HDEL', batch, 'quarantined_at') == 1
if quarantined then
  redis.call('HDEL', batch, 'error')
end
local AGAIN_MS = 30000
local function remember_cancel()
  if redis.call('HSETNX', batch, 'cancel_at', now) == 0 then
    local first = tonumber(redis.call('HGET', batch, 'cancel_at')) or now
    if now - first >= AGAIN_MS then
      redis.call('HSET', batch, 'cancel_again', 1)
    end
  end
  redis.call('HSET', batch, 'cancel_requested', 1, 'updated_at', now)
  moved(batch, now, 'cancellation requested by ' .. ARGV[6])
end
local hopeless = quarantined and (state == 'ended' or redis.call('HGET', batch, 'cancel_requested') == '1')
hopeless = hopeless or state == 'ended' and redis.call('HEXISTS', batch, 'held_since') == 1
local early = state == 'open' or state == 'sealed'
if early and not hopeless and may_be_forgotten(batch) then
  if state == 'open' then
    close_batch(lane, batch, schedule, id, now, 'it is being cancelled')
  end
  remember_cancel()
  let_go(batch, schedule, id, now)
  return 'OK'
end
if early or hopeless then
  if redis.pcall('HGET', lane, 'open') == id then
    redis.call('HDEL', lane, 'open')
  end
  redis.call('HSET', batch, 'state', 'ended', 'outcome', 'cancelled', 'provider_status', '', 'ending', ending,
    'error', err, 'cancel_requested', 1, 'ended_at', now, 'updated_at', now)
  redis.call('HDEL', batch, 'collected_at', 'denied_since', 'n_denied', 'unread_since', 'held_since', 'n_unread')
  let_go(batch, schedule, id, now)
  moved(batch, now, 'cancelled by ' .. ARGV[6])
  return 'OK'
end
if state == 'submitting' or state == 'submitted' then
  remember_cancel()
  -- A create that may be on its way must keep its token, or the batch it makes would have no owner.
  if state == 'submitted' or redis.call('HGET', batch, 'begun') ~= redis.call('HGET', batch, 'token') then
    let_go(batch, schedule, id, now)
  end
  return 'OK'
end
return 'TOO_LATE'
