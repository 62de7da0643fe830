-- Needs _sound.
-- batch_key(batch, id, other): the key of another batch of this deployment, made from the key and the id of any batch.
-- withdrawn(request, batch, id, attempt): takes a request out of a batch that is open or sealed. An open batch keeps its
--   row, as the request's place then says: asked for again before the seal, it would get a second row and be paid for twice.
local function batch_key(batch, id, other)
  return string.sub(batch, 1, -#id - 1) .. other
end

local function withdrawn(request, batch, id, attempt)
  if redis.call('HGET', batch, 'state') == 'open' then
    redis.call('SET', request, '|' .. id .. '|' .. attempt, 'KEEPTTL')
  else
    redis.call('UNLINK', request)
  end
end
