-- Starts a step on a claimed batch, once for each token: a doubled or late message changes nothing. A call that is sent
-- again, as its reply was lost, is answered again.
-- A batch in whose row as many steps as allowed began and never ended kills its workers: it is quarantined, which takes
-- it off the schedule in the state it is in, until a person retries or cancels it. The last step allowed starts only
-- alone in its process, so that no batch is blamed for a death that its neighbour caused.
-- KEYS  1 schedule  2 batch
-- ARGV  1 batch_id  2 token  3 lease_ms  4 states in which this step may start, comma separated
--       5 alone: no other step runs in this process  6 allowed: how many steps may begin and not end  7 error of a
--       quarantine in one sentence  8 nonce of the call, the same when it is sent again
-- Verdicts  {'OK', field, value, ...} the batch as it is, and `now`, the server's time, and `server_now`, which run of
--       Redis this is
--       {'ALONE'} nothing was done: begin again when no other step runs in this process
--       {'QUARANTINED', field, value, ...} it does not start  {'STALE'}
--@include _clock
--@include _fence
--@include _moved
--@include _room
--@include _server
--@include _unended
local schedule, batch = KEYS[1], KEYS[2]
local id, token, lease, states = ARGV[1], ARGV[2], tonumber(ARGV[3]), ',' .. ARGV[4] .. ','
local alone, allowed, err, nonce = ARGV[5] == '1', tonumber(ARGV[6]), ARGV[7], ARGV[8]
local begun = redis.call('HGET', batch, 'begun') == token
if not holds(batch, token) or begun and redis.call('HGET', batch, 'begun_by') ~= nonce then
  return {'STALE'}
end
if not string.find(states, ',' .. (redis.call('HGET', batch, 'state') or '') .. ',', 1, true) then
  return {'STALE'}
end
local starts = unended(batch)
if not begun and #starts == allowed - 1 and not alone then
  return {'ALONE'}
end
local now, verdict = now_ms(), 'OK'
go_on_when_full(batch)
if begun then
  redis.call('ZADD', schedule, now + lease, id)
elseif #starts >= allowed then
  verdict = 'QUARANTINED'
  redis.call('HSET', batch, 'quarantined_at', now, 'updated_at', now, 'error', err, 'missed', 0)
  redis.call('HINCRBY', batch, 'token', 1)
  redis.call('ZREM', schedule, id)
  moved(batch, now, 'quarantined')
else
  starts[#starts + 1] = token
  redis.call('HSET', batch, 'begun', token, 'begun_by', nonce, 'missed', 0, 'starts', table.concat(starts, ','))
  redis.call('ZADD', schedule, now + lease, id)
end
local fields = redis.call('HGETALL', batch)
table.insert(fields, 1, verdict)
fields[#fields + 1] = 'now'
fields[#fields + 1] = string.format('%d', now)
fields[#fields + 1] = 'server_now'
fields[#fields + 1] = server_id()
return fields
