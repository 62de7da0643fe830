-- Counts the requests of a batch as sent again, because its provider has made a second batch of them; each such batch counts
-- once, however often it is found.
-- KEYS  1 batch
-- ARGV  1 batch_id  2 provider_batch_id of the second one  3 minute_ms: how long a minute's counts are kept
-- Verdicts  'OK'  'USED' it is counted already, or the batch is gone
--@include _clock
--@include _moved
--@include _room
--@include _sound
--@include _request
--@include _counts
local batch, id, surplus = KEYS[1], ARGV[1], ARGV[2]
local state, seen, n = unpack(redis.call('HMGET', batch, 'state', 'surplus', 'n_requests'))
local listed = ',' .. (seen or '') .. ','
if not state or string.find(listed, ',' .. surplus .. ',', 1, true) then
  return 'USED'
end
go_on_when_full(batch)
redis.call('HSET', batch, 'surplus', seen and seen .. ',' .. surplus or surplus)
local now, amount = now_ms(), tonumber(n or '') or 0
count(batch, 'n_again_surplus', amount)
count_for_lane({n_again_surplus = amount}, batch, id, now, ARGV[3])
add_to_timeline(batch, now, 'the provider has a second batch of these requests, which is cancelled: ' .. surplus)
return 'OK'
