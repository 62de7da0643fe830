-- A batch's `starts`: the tokens of its steps in a row that began and never ended, comma separated, '0' for none. Their
-- workers died of them, or with them; what ends a claim, and what gets further, ends the row.
-- unended(batch): those tokens.  strike(batch, token): forgets one; whether it was among them.
local function unended(batch)
  local tokens = {}
  for token in string.gmatch(redis.call('HGET', batch, 'starts') or '', '[^,]+') do
    if token ~= '0' then
      tokens[#tokens + 1] = token
    end
  end
  return tokens
end

local function strike(batch, token)
  local left, found = {}, false
  for _, one in ipairs(unended(batch)) do
    if one == token then
      found = true
    else
      left[#left + 1] = one
    end
  end
  if found then
    redis.call('HSET', batch, 'starts', #left > 0 and table.concat(left, ',') or 0)
  end
  return found
end
