-- Stores results of a batch's requests and announces them; a request that is answered already, or is not in this
-- batch, is left alone, so a chunk may be delivered any number of times.
-- A success in a reopened batch also answers a request that the batch had ended without an answer to and that has left it
-- since, unless a provider may have been sent it again: it is paid for, and would be paid for once more.
-- Runs and lanes count what became of requests; failures are listed with the batch, by reason and the first of them one by one.
-- KEYS  1 batch  2 unanswered  3 failures  4 failed_rows; then for each of mailboxes: mailbox; then for each of rows:
--       request, result
-- ARGV  1 token  2 batch_id  3 max_attempts  4 keep_ms of results  5 mail_ms: how long a mailbox is kept  6 notice_prefix
--       7 minute_ms: how long a minute's counts are kept  8 n_mailboxes; then for each of mailboxes; then for each of rows: kind (S success, F failure, R worth another
--       attempt), request_id, packed, about (S: counts of tokens, `name=n` and so on; else status and code)
-- Verdicts  {'OK', n answered, n left for another attempt, n not in this batch, bytes of all answers of the batch}
--       {'MAILBOXES', name, ...} nothing was done: these wait for rows of the chunk, name them too
--       {'STALE'}
--@include _clock
--@include _fence
--@include _room
--@include _server
--@include _sound
--@include _recount
--@include _request
--@include _mail
--@include _counts
local batch, unanswered = KEYS[1], KEYS[2]
local token, batch_id, attempts, keep_ms, mail_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local channel_prefix, n_mailboxes = ARGV[6], tonumber(ARGV[8])
local first_key, first_arg = 4 + n_mailboxes, 8 + n_mailboxes
local n = (#ARGV - first_arg) / 4
local failures, failed_rows = KEYS[3], KEYS[4]
local MOST_FAILED_ROWS = 1000

if not holds(batch, token) then
  return {'STALE'}
end
local mail = mail_to(n_mailboxes, 4, 8)
local reopened = redis.call('HEXISTS', batch, 'reopened_at') == 1

-- The batch in which a request of a reopened batch waits now, '' for none, and who waits; nil where it is not to be answered.
local function elsewhere(i, owner, waiting)
  local at = first_arg + 4 * i - 3
  if ARGV[at] ~= 'S' or redis.pcall('SISMEMBER', unanswered, ARGV[at + 1]) ~= 1 then
    return nil
  end
  if redis.pcall('GETRANGE', KEYS[first_key + 2 * i], 0, 0) == '+' then
    return nil
  end
  if not owner then
    return '', ''
  end
  local other = batch_key(batch, batch_id, owner)
  local state = redis.pcall('HGET', other, 'state')
  if state ~= 'open' and state ~= 'sealed' or may_be_forgotten(other) then
    return nil
  end
  return owner, waiting
end

local mine, attempt_of, unknown, missing, moved = {}, {}, 0, {}, {}
for i = 1, n do
  local owner, attempt, waiting = flight(KEYS[first_key + 2 * i - 1])
  if owner ~= batch_id and reopened then
    local other, others = elsewhere(i, owner, waiting)
    if other then
      moved[i], owner, waiting = {id = other, attempt = attempt}, batch_id, others
    end
  end
  if owner == batch_id then
    mine[i], attempt_of[i] = waiting, tonumber(attempt) or attempts
    for _, name in ipairs(names(waiting)) do
      if not mail[name] then
        missing[name] = true
      end
    end
  else
    unknown = unknown + 1
  end
end
if next(missing) then
  local verdict = {'MAILBOXES'}
  for name in pairs(missing) do
    verdict[#verdict + 1] = name
  end
  return verdict
end

go_on_when_full(batch)
local n_succeeded, n_failed, n_moved, n_bytes = 0, 0, 0, 0
local answered, left, sums, tokens, reasons, listed = {}, {}, {}, {}, {}, {}

-- Takes note of an answer for people: tokens of a success, the reason of a failure.
local function note(waiting, kind, request_id, attempt, about)
  add_to(sums, waiting, kind == 'S' and 'n_succeeded' or 'n_failed', 1)
  if kind == 'S' then
    for name, amount in string.gmatch(about, '([%l_]+)=(%d+)') do
      tokens[name] = (tokens[name] or 0) + amount
      add_to(sums, waiting, name, amount)
    end
  else
    local reason = string.match(about, '^%d+ %S+') or '0 unknown'
    reasons[reason] = (reasons[reason] or 0) + 1
    listed[#listed + 1] = request_id .. ' ' .. attempt .. ' ' .. about
  end
end

for i = 1, n do
  if mine[i] then
    local at = first_arg + 4 * i - 3
    local kind, request_id, packed, about = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
    if answered[request_id] then
      unknown = unknown + 1
    elseif kind == 'R' and attempt_of[i] < attempts then
      -- An answer further down the chunk is still taken: it was paid for.
      left[request_id] = true
    else
      answered[request_id], left[request_id] = true, nil
      redis.call('SET', KEYS[first_key + 2 * i], packed, 'PX', keep_ms)
      n_bytes = n_bytes + #packed
      if not moved[i] then
        redis.call('UNLINK', KEYS[first_key + 2 * i - 1])
      else
        n_moved = n_moved + 1
        if moved[i].id ~= '' then
          local other = batch_key(batch, batch_id, moved[i].id)
          withdrawn(KEYS[first_key + 2 * i - 1], other, moved[i].id, moved[i].attempt)
          count(other, 'n_dropped', 1)
        end
      end
      tell(mail, mine[i], request_id)
      note(mine[i], kind, request_id, attempt_of[i], about)
      if kind == 'S' then
        n_succeeded = n_succeeded + 1
      else
        n_failed = n_failed + 1
      end
    end
  end
end
if n_moved > 0 then
  recount(batch, n_moved)
end
count_for_runs(sums, batch, batch_id)
for name, amount in pairs(tokens) do
  count(batch, name, amount)
end
if next(reasons) then
  local ttl = redis.call('PTTL', batch)
  for reason, times in pairs(reasons) do
    redis.pcall('HINCRBY', failures, reason, times)
  end
  local room = MOST_FAILED_ROWS - (tonumber(redis.pcall('LLEN', failed_rows)) or MOST_FAILED_ROWS)
  if room > 0 then
    redis.pcall('RPUSH', failed_rows, unpack(listed, 1, math.min(room, #listed)))
  end
  redis.pcall('PEXPIRE', failures, ttl)
  redis.pcall('PEXPIRE', failed_rows, ttl)
end
if n_succeeded > 0 then
  count(batch, 'n_succeeded', n_succeeded)
end
if n_failed > 0 then
  count(batch, 'n_failed', n_failed)
end
if n_succeeded + n_failed > 0 then
  -- This step got further than those before it that never ended.
  redis.call('HSET', batch, 'starts', 0)
end
local now = now_ms()
redis.call('HSET', batch, 'updated_at', now)
tokens.n_succeeded = n_succeeded > 0 and n_succeeded or nil
tokens.n_failed = n_failed > 0 and n_failed or nil
count_for_lane(tokens, batch, batch_id, now, ARGV[7])
local n_retry = 0
for _ in pairs(left) do
  n_retry = n_retry + 1
end
send(mail, mail_ms, channel_prefix)
return {'OK', n_succeeded + n_failed, n_retry, unknown, count(batch, 'n_answer_bytes', n_bytes)}
