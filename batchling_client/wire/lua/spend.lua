-- Notes that the files of an ended batch are needed no more: those that it was made of from now on, its results later.
-- KEYS  1 spent_files  2 batch
-- ARGV  1 batch_id  2 token  3 inputs_ms: delay of the input files  4 results_ms: delay of the results  5 keep_ms
-- Verdicts  'OK'  'STALE'
--@include _clock
--@include _fence
--@include _room
--@include _sound
local spent, batch = KEYS[1], KEYS[2]
local id, token = ARGV[1], ARGV[2]
local inputs_ms, results_ms, keep_ms = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
if not holds(batch, token) or redis.call('HGET', batch, 'state') ~= 'ended' then
  return 'STALE'
end
go_on_when_full(batch)
if not of_type(spent, 'zset') then
  redis.call('UNLINK', spent)
end
local now = now_ms()
redis.call('ZADD', spent, now + inputs_ms, 'inputs:' .. id, now + results_ms, 'results:' .. id)
redis.call('PEXPIRE', spent, keep_ms)
return 'OK'
