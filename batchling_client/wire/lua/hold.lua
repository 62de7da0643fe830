-- Hands back a claimed batch that waits for something outside of it, such as room in a quota: no stumble of its own.
-- KEYS  1 schedule  2 batch
-- ARGV  1 batch_id  2 token  3 delay_ms  4 why, in one sentence
--       5 unmade: the provider has just refused the create and surely made no batch: as before its submission, the batch is
--       sealed again, and its file is forgotten, since a request may now be withdrawn
--       6 parked: its key is refused; a batch that has ended is held, as its results cannot be read
--       7 away: its account cannot be called; the time since when a batch could not be submitted is kept, and the first
--       time stored where there is none. Any other wait of an unsubmitted batch forgets it
-- Verdicts  'OK'  'STALE'
-- States  submitting -> sealed
--@include _clock
--@include _fence
--@include _moved
--@include _room
local schedule, batch = KEYS[1], KEYS[2]
local id, token, delay, why = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local unmade, parked, away = ARGV[5] == '1', ARGV[6] == '1', ARGV[7] == '1'
if not holds(batch, token) then
  return 'STALE'
end
local now = now_ms()
go_on_when_full(batch)
local state = redis.call('HGET', batch, 'state')
redis.call('HSET', batch, 'error', why, 'updated_at', now)
if parked and state == 'ended' then
  redis.call('HSETNX', batch, 'held_since', now)
end
if away and (state == 'sealed' or state == 'submitting') then
  redis.call('HSETNX', batch, 'unable_since', now)
elseif not away and not parked then
  redis.call('HDEL', batch, 'unable_since')
end
if unmade and state == 'submitting' then
  redis.call('HSET', batch, 'state', 'sealed')
  redis.call('HDEL', batch, 'create_at', 'input_file_id', 'n_lines')
end
let_go(batch, schedule, id, now + delay)
moved(batch, now, 'waits: ' .. why)
return 'OK'
