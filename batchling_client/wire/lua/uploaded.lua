-- Remembers the provider's input file of a batch, so that it is not uploaded twice; of an earlier one, that a batch may
-- have been made of, the id is kept. Earlier steps that never ended are forgotten, as this one got further.
-- KEYS  1 batch
-- ARGV  1 token  2 input_file_id  3 n_lines in it  4 account that it belongs to, a digest
-- Verdicts  'OK'  'STALE'
--@include _fence
--@include _room
local batch = KEYS[1]
local token, input_file_id, n_lines, account = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if not holds(batch, token) or redis.call('HGET', batch, 'state') ~= 'submitting' then
  return 'STALE'
end
go_on_when_full(batch)
local former = redis.call('HGET', batch, 'input_file_id')
if former and former ~= '' and former ~= input_file_id then
  redis.call('HSET', batch, 'former_file_id', former)
end
redis.call('HSET', batch, 'input_file_id', input_file_id, 'n_lines', n_lines, 'account', account, 'starts', 0)
return 'OK'
