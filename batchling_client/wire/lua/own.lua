-- Makes a batch the owner of its provider's id, unless another batch that is not over owns it: the answer to its create then
-- showed that other batch. A batch that is over owns nothing, because a restarted server may count its ids from one again.
-- KEYS  1 owner(name)  2 batch
-- ARGV  1 batch_id  2 terminal: the terminal states, comma separated  3 keep_ms
-- Verdicts  {'OK'}; said again, it changes nothing  {'TAKEN', id of the batch that owns it}
--@include _room
--@include _sound
--@include _request
local owner, batch = KEYS[1], KEYS[2]
local id, terminal, keep_ms = ARGV[1], ',' .. ARGV[2] .. ',', ARGV[3]
local held_by = word(owner)
if held_by and held_by ~= id then
  local state = redis.pcall('HGET', batch_key(batch, id, held_by), 'state')
  if type(state) == 'string' and not string.find(terminal, ',' .. state .. ',', 1, true) then
    return {'TAKEN', held_by}
  end
end
go_on_when_full(batch)
redis.call('SET', owner, id, 'PX', keep_ms)
return {'OK'}
