-- Appends requests to a lane's open batch, or attaches to the same requests already in flight or answered.
-- KEYS  1 schedule  2 lane  3 batch  4 rows  5 batches  6 lanes  7 run  8 run_batches  9 runs  10 run_rows
--       11 credential(whose); then for each of rows: request, result
-- ARGV  1 batch_id (the caller's guess of the open one)  2 lane_id  3 spec  4 mailbox  5 run_id  6 run_name
--       7 cap.linger_ms  8 cap.longest_ms  9 cap.rows  10 cap.bytes  11 poll_ms: shortest poll interval, 0 = no wish
--       12 keep_ms  13 ask_failed_anew: a failed result is asked anew, else it is the answer (a resend of a call whose
--       reply was lost)  14 repeats: a character per row, 1 = this run has asked
--       for it before  15 whose: the credential that the batch needs, '' = none is looked for
--       16 n_rows; then for each of rows: request_id, packed, size (bytes of its line)
-- Verdicts  {'OK', n taken, placements}: a character each, Q queued, J joined (in flight), L joined to a batch that is
--       being cancelled, D answered; when fewer were taken than given, the batch was full and is sealed: send the rest
--       with a fresh batch id.
--       {'MOVED', open batch id}  {'USED'}: nothing was done, call again with that id, or a fresh one.
--       {'UNSEALED'}: nothing was done, as the credential is not stored: store it and call again.
-- Everything or nothing is written, except that the requests not taken are left for the next call.
-- A request names only the latest who wait for it: see _request.
-- The impatient set the pace: a batch lingers and is polled as the shortest wish of those in it.
-- States  none -> open  open -> sealed
--@include _clock
--@include _server
--@include _sound
--@include _moved
--@include _lane
--@include _room
--@include _request
--@include _counts
local schedule, lane, batch, rows, batches, lanes = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local run, run_batches, runs, run_rows = KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local id, lane_id, spec, mailbox, run_id, run_name = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local linger, longest, cap_rows, cap_bytes = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local poll_ms, keep_ms, ask_failed_anew, n = tonumber(ARGV[11]), tonumber(ARGV[12]), ARGV[13] == '1', tonumber(ARGV[16])
local credential, whose = KEYS[11], ARGV[15]
local FIRST_KEY, FIRST_ARG = 11, 16

if whose ~= '' and redis.call('EXISTS', credential) == 0 then
  return {'UNSEALED'}
end

local function shortest_of_wishes(wish, held)
  held = tonumber(held or '0') or 0
  if wish == 0 or held == 0 then
    return math.max(wish, held)
  end
  return math.min(wish, held)
end

local now = now_ms()
local placements, queued, joined_batches, cancelled = {}, false, {}, {}
local n_requests, n_bytes, created_at = nil, nil, now
local full, taken, opened = false, n, false
local fresh_rows, n_fresh, n_reused = {}, 0, 0
local waiting_alone = mailbox .. ':' .. run_id
-- The requests that are new to the run, and how many of them are answered already.
local new, n_found, repeats = {}, {n_succeeded = 0, n_failed = 0}, ARGV[14]
local function asked_before(i)
  return string.byte(repeats, i) == 49
end
-- A call whose reply was lost may have listed its requests: they are among the last then.
local last_listed = not ask_failed_anew and redis.pcall('LRANGE', run_rows, -50, -1)
last_listed = last_listed and not last_listed.err and table.concat(last_listed, ' ') or ''
for i = 1, n do
  local request, result = KEYS[FIRST_KEY + 2 * i - 1], KEYS[FIRST_KEY + 2 * i]
  local answered = redis.pcall('GETRANGE', result, 0, 0)
  local owner, attempt, waiting, dropped_from = flight(request)
  if answered == '+' or (answered == '-' and not ask_failed_anew) then
    placements[i] = 'D'
    n_reused = n_reused + 1
    local request_id = ARGV[FIRST_ARG + 3 * i - 2]
    if not asked_before(i) and not string.find(last_listed, request_id, 1, true) then
      local fate = answered == '+' and 'n_succeeded' or 'n_failed'
      n_found[fate] = n_found[fate] + 1
      new[#new + 1] = request_id
    end
  elseif owner then
    local waits, counts = named(names(waiting), mailbox), named(runs_of(waiting), run_id)
    if not counts and not asked_before(i) then
      new[#new + 1] = ARGV[FIRST_ARG + 3 * i - 2]
    end
    if not (waits and counts) then
      put(request, owner, attempt, one_more(waiting, mailbox, run_id))
    end
    n_reused = n_reused + (waits and 0 or 1)
    joined_batches[owner] = true
    if cancelled[owner] == nil then
      local key = batch_key(batch, id, owner)
      local joined = redis.pcall('HMGET', key, 'cancel_requested', 'state', 'runs')
      cancelled[owner] = joined[1] == '1'
      -- A batch that is forgotten stays so: a new record would have no lifetime.
      if joined[2] then
        name_run(key, joined[3], run_id)
      end
    end
    placements[i] = cancelled[owner] and 'L' or 'J'
  else
    if not opened then
      local refused = open_batch(lane, batch, rows, schedule, batches, lanes, lane_id, id, spec, keep_ms, now)
      if refused then
        if i == 1 then
          return refused
        end
        taken = i - 1
        break
      end
      opened = true
      local held = redis.call('HMGET', batch, 'n_requests', 'n_bytes', 'created_at', 'poll_ms', 'linger_ms', 'longest_ms', 'runs')
      name_run(batch, held[7], run_id)
      n_requests, n_bytes, created_at = tonumber(held[1]), tonumber(held[2]), tonumber(held[3])
      poll_ms = shortest_of_wishes(poll_ms, held[4])
      linger, longest = shortest(linger, held[5]), shortest(longest, held[6])
    end
    if dropped_from == id then
      -- Withdrawn from this very batch, in which its row still stands: the row comes to life again.
      count(batch, 'n_dropped', -1)
    else
      local row, size = ARGV[FIRST_ARG + 3 * i - 1], tonumber(ARGV[FIRST_ARG + 3 * i])
      if n_requests >= cap_rows or (n_requests > 0 and n_bytes + size > cap_bytes) then
        full, taken = true, i - 1
        break
      end
      if dropped_from then
        leave_row(lane, batch_key(batch, id, dropped_from), schedule, dropped_from, now)
      end
      n_requests, n_bytes = n_requests + 1, n_bytes + size
      n_fresh = n_fresh + 1
      fresh_rows[n_fresh] = row
      attempt = '1'
    end
    put(request, id, attempt, waiting_alone, keep_ms)
    new[#new + 1] = ARGV[FIRST_ARG + 3 * i - 2]
    if answered == '-' then
      redis.call('UNLINK', result)
    end
    placements[i] = 'Q'
    queued = true
  end
end

if queued then
  for first = 1, n_fresh, 500 do
    redis.call('RPUSH', rows, unpack(fresh_rows, first, math.min(first + 499, n_fresh)))
  end
  redis.call('PEXPIRE', rows, keep_ms)
  redis.call('HSET', batch, 'n_requests', n_requests, 'n_bytes', n_bytes, 'updated_at', now, 'poll_ms', poll_ms,
    'linger_ms', linger, 'longest_ms', longest)
  joined_batches[id] = true
  if n_requests >= cap_rows then
    full = true
  end
end
if full then
  close_batch(lane, batch, schedule, id, now, 'full')
elseif queued then
  redis.call('ZADD', schedule, math.min(now + linger, created_at + longest), id)
end
if taken > 0 then
  -- Only people read these: what is damaged of it must not cost a request.
  go_on_when_full(run)
  redis.pcall('HSETNX', run, 'name', run_name)
  redis.pcall('HSETNX', run, 'started_at', now)
  redis.pcall('HINCRBY', run, 'n_requests', #new)
  for fate, n in pairs(n_found) do
    if n > 0 then
      redis.pcall('HINCRBY', run, fate, n)
    end
  end
  if #new > 0 then
    redis.pcall('RPUSH', run_rows, table.concat(new, ' '))
  end
  if n_reused > 0 then
    redis.pcall('HINCRBY', run, 'n_reused', n_reused)
  end
  redis.pcall('HSET', run, 'mailbox:' .. mailbox, 1)
  redis.pcall('ZADD', runs, 'NX', now, run_id)
  redis.pcall('ZREMRANGEBYSCORE', runs, '-inf', now - keep_ms)
  for batch_id in pairs(joined_batches) do
    redis.pcall('SADD', run_batches, batch_id)
  end
  redis.pcall('PEXPIRE', run, keep_ms)
  redis.pcall('PEXPIRE', runs, keep_ms)
  redis.pcall('PEXPIRE', run_batches, keep_ms)
  redis.pcall('PEXPIRE', run_rows, keep_ms)
end
if whose ~= '' and taken > 0 then
  -- From now on it lives as long as the requests may be in flight: see lapse.lua.
  redis.call('PEXPIRE', credential, keep_ms)
end
return {'OK', taken, table.concat(placements)}
