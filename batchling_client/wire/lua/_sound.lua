-- A foreign value under one of our keys must neither stop a script halfway nor be used as ours.
-- of_type(key, type): whether the key is free or of that type.
-- word(key): the string at a key, false where there is none or a value of another type.
-- count(hash, field, by): counts; a counter that holds no number begins anew.
local function of_type(key, kind)
  local held = redis.call('TYPE', key)['ok']
  return held == 'none' or held == kind
end

local function word(key)
  local held = redis.pcall('GET', key)
  return type(held) == 'string' and held
end

local function count(hash, field, by)
  local held = redis.pcall('HINCRBY', hash, field, by)
  if type(held) == 'table' then
    redis.pcall('HSET', hash, field, math.max(by, 0))
    return by
  end
  return held
end
