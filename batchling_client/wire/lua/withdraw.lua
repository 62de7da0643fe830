-- Takes a waiter off a request; when no one else waits and no provider was called yet, the request is dropped. If another
-- run of Redis opened the batch, a provider may have been called: the request is kept.
-- KEYS  1 request  2 batch it is in
-- ARGV  1 batch_id  2 mailbox
-- Verdicts  'OK' dropped  'JOINED' others wait for it  'TOO_LATE' it keeps running, its answer will be kept
--       'GONE' not in that batch (any more)
--@include _room
--@include _server
--@include _sound
--@include _request
--@include _counts
local request, batch = KEYS[1], KEYS[2]
local batch_id, mailbox = ARGV[1], ARGV[2]
local owner, attempt, waiting = flight(request)
if owner ~= batch_id then
  return 'GONE'
end
-- A '+' among them, for those whom the list does not name (see _request), is somebody else too.
local others = some_left_out(waiting) and {'+'} or {}
for _, name in ipairs(names(waiting)) do
  if name ~= mailbox then
    others[#others + 1] = name
  end
end
if #others > 0 then
  go_on_when_full(batch)
  put(request, owner, attempt, table.concat(others, ',') .. (string.match(waiting, ':.*$') or ''))
  return 'JOINED'
end
local state = redis.pcall('HGET', batch, 'state')
if state ~= 'open' and state ~= 'sealed' or may_be_forgotten(batch) then
  return 'TOO_LATE'
end
go_on_when_full(batch)
withdrawn(request, batch, owner, attempt)
count(batch, 'n_dropped', 1)
leave_runs(waiting, batch, batch_id, request)
return 'OK'
