-- Hands back an ended batch whose results lack rows that its provider may have answered: it is looked at and read again.
-- KEYS  1 schedule  2 batch
-- ARGV  1 batch_id  2 token  3 delay_ms  4 ending (JSON) as the last look showed it  5 why, in one sentence
--       6 held_back: it waits for its results, a person, or the end of the provider's retention
-- Verdicts  'OK'  'STALE'
--@include _clock
--@include _fence
--@include _moved
--@include _room
--@include _sound
local schedule, batch = KEYS[1], KEYS[2]
local id, token, delay, ending, why, held_back = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6] == '1'
if not holds(batch, token) or redis.call('HGET', batch, 'state') ~= 'ended' then
  return 'STALE'
end
local now = now_ms()
go_on_when_full(batch)
redis.call('HSETNX', batch, 'unread_since', now)
count(batch, 'n_unread', 1)
if held_back then
  redis.call('HSETNX', batch, 'held_since', now)
else
  redis.call('HDEL', batch, 'held_since')
end
redis.call('HSET', batch, 'ending', ending, 'error', why, 'updated_at', now, 'n_stumbles', 0)
redis.call('HDEL', batch, 'denied_since', 'n_denied')
let_go(batch, schedule, id, now + delay)
add_to_timeline(batch, now, 'to be read again: ' .. why)
return 'OK'
