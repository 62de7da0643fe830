-- Drops a request that nobody will ever answer: the batch it is in is over or gone, or a foreign value in its place.
-- KEYS  1 request  2 batch it is in
-- ARGV  1 batch_id  2 terminal: the terminal states, comma separated
-- Verdicts  'OK' dropped: it may be asked for again  'UNREADABLE' dropped, though the batch may have been paid for
--       'GONE' not in that batch (any more)  'LIVES' the batch may yet answer it: nothing was done
--@include _sound
--@include _request
local request, batch = KEYS[1], KEYS[2]
local id, terminal = ARGV[1], ',' .. ARGV[2] .. ','
if flight(request) ~= id then
  return 'GONE'
end
local verdict = 'OK'
if not of_type(batch, 'hash') then
  verdict = 'UNREADABLE'
elseif redis.call('EXISTS', batch) == 1 then
  local state = redis.call('HGET', batch, 'state') or ''
  -- A state that is not known is a worker's to judge: another one may know it.
  if not string.find(terminal, ',' .. state .. ',', 1, true) then
    return 'LIVES'
  end
  if redis.call('HEXISTS', batch, 'unreadable_since') == 1 then
    verdict = 'UNREADABLE'
  end
end
redis.call('UNLINK', request)
return verdict
