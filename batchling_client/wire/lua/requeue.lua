-- Moves unanswered requests of an ended batch into the lane's open batch, for another attempt. A request that has moved
-- or is answered already is left alone; if no other is given, no batch is opened. Moved requests set the linger of the
-- batch as enqueued requests do.
-- KEYS  1 schedule  2 lane  3 batch(target)  4 rows(target)  5 batches  6 lanes  7 batch(source_id); then for each of rows:
--       request
-- ARGV  1 target (a guess of the open batch)  2 lane_id  3 spec  4 source_id  5 token of the source
--       6 cap.linger_ms  7 cap.longest_ms  8 cap.rows  9 cap.bytes  10 keep_ms
--       11 sent_again: why they are sent once more, as it is counted; '' = they were not sent
--       12 minute_ms: how long a minute's counts are kept  13 n_rows; then for each of rows: packed,
--       attempt (which it stands for), size (bytes of its line)
-- Verdicts  {'OK', n taken} fewer than given: the target was full and is sealed, send the rest with a fresh id
--       {'MOVED', open batch id}  {'USED'}  {'STALE'}: nothing was done
-- States  none -> open  open -> sealed
--@include _clock
--@include _fence
--@include _server
--@include _sound
--@include _moved
--@include _lane
--@include _room
--@include _request
--@include _counts
local schedule, lane, batch, rows, batches, lanes, source = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local id, lane_id, spec, source_id, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local linger, longest, cap_rows, cap_bytes = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local keep_ms, sent_again, n = tonumber(ARGV[10]), ARGV[11], tonumber(ARGV[13])
local FIRST_KEY, FIRST_ARG = 7, 13

if not holds(source, token) or redis.call('HGET', source, 'state') ~= 'ended' then
  return {'STALE'}
end
local now = now_ms()
local waiting, n_mine, seen = {}, 0, {}
for i = 1, n do
  local request = KEYS[FIRST_KEY + i]
  local owner, _, mailboxes = flight(request)
  if owner == source_id and not seen[request] then
    seen[request], waiting[i], n_mine = true, mailboxes, n_mine + 1
  end
end
if n_mine == 0 then
  return {'OK', n}
end
go_on_when_full(source)
local refused = open_batch(lane, batch, rows, schedule, batches, lanes, lane_id, id, spec, keep_ms, now)
if refused then
  return refused
end
local held = redis.call('HMGET', batch, 'n_requests', 'n_bytes', 'created_at', 'linger_ms', 'longest_ms', 'runs')
local n_requests, n_bytes, created_at = tonumber(held[1]), tonumber(held[2]), tonumber(held[3])
linger, longest = shortest(linger, held[4]), shortest(longest, held[5])
local poll_ms = redis.call('HGET', source, 'poll_ms')
if tonumber(poll_ms or '') then
  redis.call('HSETNX', batch, 'poll_ms', poll_ms)
end
local taken, full, n_moved = n, false, 0
local n_waiting = {}
for i = 1, n do
  if waiting[i] then
    local at = FIRST_ARG + 3 * i - 2
    local row, attempt, size = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
    if n_requests >= cap_rows or (n_requests > 0 and n_bytes + size > cap_bytes) then
      taken, full = i - 1, true
      break
    end
    n_requests, n_bytes, n_moved = n_requests + 1, n_bytes + size, n_moved + 1
    redis.call('RPUSH', rows, row)
    put(KEYS[FIRST_KEY + i], id, attempt, waiting[i], keep_ms)
    n_waiting[waiting[i]] = (n_waiting[waiting[i]] or 0) + 1
  end
end
redis.call('PEXPIRE', rows, keep_ms)
redis.call('HSET', batch, 'n_requests', n_requests, 'n_bytes', n_bytes, 'updated_at', now,
  'linger_ms', linger, 'longest_ms', longest)
if n_moved > 0 then
  count(source, 'n_requeued', n_moved)
  redis.call('HSET', source, 'moved_to', id, 'starts', 0)
  local some = n_moved .. (n_moved == 1 and ' request' or ' requests')
  add_to_timeline(source, now, some .. ' moved on to ' .. id)
  add_to_timeline(batch, now, some .. ' came from ' .. source_id)
  local runs_named, counted_as, sums = held[6], 'n_again_' .. sent_again, {}
  for who, n_of_them in pairs(n_waiting) do
    sums[who] = {[counted_as] = n_of_them}
    for _, run in ipairs(runs_of(who)) do
      runs_named = name_run(batch, runs_named, run)
    end
  end
  if sent_again ~= '' then
    count(source, counted_as, n_moved)
    count_for_runs(sums, source, source_id)
    count_for_lane({[counted_as] = n_moved}, source, source_id, now, ARGV[12])
  end
end
if full or n_requests >= cap_rows then
  close_batch(lane, batch, schedule, id, now, 'full')
else
  redis.call('ZADD', schedule, math.min(now + linger, created_at + longest), id)
end
return {'OK', taken}
