-- Remembers the provider's input file of a batch, so that it is not uploaded twice; earlier steps that never ended are
-- forgotten, as this one got further.
-- KEYS  1 batch
-- ARGV  1 token  2 input file id  3 number of lines in it
-- Verdicts  'OK'  'STALE'
--@include _fence
--@include _room
local batch = KEYS[1]
local token, input_file_id, n_lines = ARGV[1], ARGV[2], ARGV[3]
if not holds(batch, token) or redis.call('HGET', batch, 'state') ~= 'submitting' then
  return 'STALE'
end
go_on_when_full(batch)
redis.call('HSET', batch, 'input_file_id', input_file_id, 'n_lines', n_lines, 'starts', 0)
return 'OK'
