-- Hands a claimed batch back in the state it is in, to be looked at again after a delay. A submission that failed
-- before its file was stored or a create was armed leaves the batch sealed, so that its requests can be withdrawn.
-- KEYS  1 schedule  2 batch
-- ARGV  1 batch_id  2 token  3 delay_ms  4 error, or '' to keep the last; the first error that keeps a batch from being
--       submitted is stored with its time
--       5 create_refused: the provider surely made no batch of the create, so that the next try need not search for one
--       6 denied: the provider answered and denies; it does not know the batch or its results, or the key has no right.
--       Denials in a row are counted with the time of the first; any other release ends the row of them.
-- Verdicts  'OK'  'STALE'
-- States  submitting -> sealed
--@include _clock
--@include _fence
--@include _moved
--@include _room
--@include _server
local schedule, batch = KEYS[1], KEYS[2]
local id, token, delay, err, refused = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5] == '1'
local denied = ARGV[6] == '1'
if not holds(batch, token) then
  return 'STALE'
end
local now = now_ms()
go_on_when_full(batch)
if err ~= '' then
  redis.call('HSET', batch, 'error', err)
  redis.call('HINCRBY', batch, 'n_stumbles', 1)
  local state = redis.call('HGET', batch, 'state')
  if state == 'sealed' or state == 'submitting' then
    redis.call('HSETNX', batch, 'unable_since', now)
  end
end
if denied then
  redis.call('HSETNX', batch, 'denied_since', now)
  redis.call('HINCRBY', batch, 'n_denied', 1)
else
  redis.call('HDEL', batch, 'denied_since', 'n_denied')
end
if refused then
  redis.call('HDEL', batch, 'create_at')
end
local begun = redis.call('HMGET', batch, 'create_at', 'doubted_at', 'n_creates', 'input_file_id')
local unsent = not begun[1] and not begun[2] and not begun[3] and (not begun[4] or begun[4] == '')
if err ~= '' and unsent and redis.call('HGET', batch, 'state') == 'submitting' and not may_be_forgotten(batch) then
  redis.call('HSET', batch, 'state', 'sealed')
end
redis.call('HSET', batch, 'updated_at', now)
let_go(batch, schedule, id, now + delay)
if err ~= '' then
  moved(batch, now, 'to be tried again: ' .. err)
end
return 'OK'
