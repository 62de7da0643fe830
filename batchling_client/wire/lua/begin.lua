-- Starts a step on a claimed batch, once for each token: a doubled or late message changes nothing.
-- KEYS  1 schedule  2 batch
-- ARGV  1 batch id  2 token  3 lease ms  4 the states in which this step may start, comma separated
-- Verdicts  {'OK', field, value, ...} the batch as it is, and `now`, the server's time, and `server_now`, which run of
--       Redis this is; {'STALE'}
--@include _clock
--@include _fence
--@include _room
--@include _server
local schedule, batch = KEYS[1], KEYS[2]
local id, token, lease, states = ARGV[1], ARGV[2], tonumber(ARGV[3]), ',' .. ARGV[4] .. ','
if not holds(batch, token) or redis.call('HGET', batch, 'begun') == token then
  return {'STALE'}
end
if not string.find(states, ',' .. redis.call('HGET', batch, 'state') .. ',', 1, true) then
  return {'STALE'}
end
go_on_when_full(batch)
redis.call('HSET', batch, 'begun', token, 'missed', 0)
redis.call('HINCRBY', batch, 'starts', 1)
local now = now_ms()
redis.call('ZADD', schedule, now + lease, id)
local fields = redis.call('HGETALL', batch)
table.insert(fields, 1, 'OK')
fields[#fields + 1] = 'now'
fields[#fields + 1] = string.format('%d', now)
fields[#fields + 1] = 'server_now'
fields[#fields + 1] = server_id()
return fields
