-- Hands back a claimed batch that waits for something outside of it, such as room in a quota: no stumble of its own.
-- KEYS  1 schedule  2 batch
-- ARGV  1 batch id  2 token  3 delay ms  4 why, in one sentence
--       5 '1' = the provider has just refused the create and surely made no batch: as before its submission, the batch is
--       sealed again, and its file is forgotten, since a request may now be withdrawn
--       6 '1' = its key is refused: one that has ended is held, as its results cannot be read
-- Verdicts  'OK'  'STALE'
--@include _clock
--@include _fence
--@include _room
local schedule, batch = KEYS[1], KEYS[2]
local id, token, delay, why = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local unmade, parked = ARGV[5] == '1', ARGV[6] == '1'
if not holds(batch, token) then
  return 'STALE'
end
local now = now_ms()
go_on_when_full(batch)
redis.call('HSET', batch, 'error', why, 'updated_at', now)
if parked and redis.call('HGET', batch, 'state') == 'ended' then
  redis.call('HSETNX', batch, 'held_since', now)
end
if unmade and redis.call('HGET', batch, 'state') == 'submitting' then
  redis.call('HSET', batch, 'state', 'sealed')
  redis.call('HDEL', batch, 'create_at', 'input_file_id', 'n_lines')
end
let_go(batch, schedule, id, now + delay)
return 'OK'
