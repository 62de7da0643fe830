-- moved(batch, now, what): call it last in a script that moves a batch, with what happened in a few words. It puts the
--   batch into the list of its lane and state, and adds a line to its timeline. Only people read these: what is damaged of
--   them must not cost a request, so nothing here raises.
-- add_to_timeline(batch, now, what): adds the line alone, unless it differs from the last one only in its numbers.
-- unlisted(batch): takes a batch that is about to be erased out of that list.
-- The lists: `lane_batches:LANE:STATE`, scored by when the batch was opened, or by when it ended if it is over. Beside the
--   states there are `quarantined`, and `settled_with_failures` for a settled batch with failed requests.
local MOST_LINES, LONGEST_LINE = 50, 160
local OVER = {settled = true, settled_with_failures = true, failed = true, cancelled = true}

local function with_line(timeline, now, what)
  what = string.sub(string.gsub(what, '%c+', ' '), 1, LONGEST_LINE)
  local lines = {}
  for line in string.gmatch(timeline or '', '[^\n]+') do
    lines[#lines + 1] = line
  end
  local last = string.match(lines[#lines] or '', '^%d+ (.*)$')
  if last and string.gsub(last, '%d+', '#') == string.gsub(what, '%d+', '#') then
    return timeline
  end
  lines[#lines + 1] = string.format('%d', now) .. ' ' .. what
  if #lines > MOST_LINES then
    -- How it began and how it ends say more than what is between.
    table.remove(lines, math.floor(MOST_LINES / 2))
  end
  return table.concat(lines, '\n')
end

local function add_to_timeline(batch, now, what)
  local held = redis.pcall('HGET', batch, 'timeline')
  if type(held) ~= 'table' then
    redis.pcall('HSET', batch, 'timeline', with_line(held or '', now, what))
  end
end

local function list_of(held)
  if held.quarantined_at and not OVER[held.state] then
    return 'quarantined'
  end
  if held.state == 'settled' and (tonumber(held.n_failed or '') or 0) > 0 then
    return 'settled_with_failures'
  end
  return held.state
end

local LISTED_BY = {'id', 'lane', 'state', 'quarantined_at', 'n_failed', 'created_at', 'listed', 'timeline'}

local function moved(batch, now, what)
  local values, held = redis.pcall('HMGET', batch, unpack(LISTED_BY)), {}
  if values.err then
    return
  end
  for i, name in ipairs(LISTED_BY) do
    held[name] = values[i] or nil
  end
  local id, list = held.id, list_of(held)
  if not (id and held.lane and list) or string.sub(batch, -#id - 6) ~= 'batch:' .. id then
    return
  end
  local lists = string.sub(batch, 1, -#id - 7) .. 'lane_batches:' .. held.lane .. ':'
  if held.listed and held.listed ~= list then
    redis.pcall('ZREM', lists .. held.listed, id)
  end
  local ttl = redis.call('PTTL', batch)
  if OVER[list] then
    redis.pcall('ZREMRANGEBYSCORE', lists .. list, '-inf', now - ttl)
  end
  redis.pcall('ZADD', lists .. list, OVER[list] and now or tonumber(held.created_at or '') or now, id)
  local left = redis.pcall('PTTL', lists .. list)
  if type(left) == 'number' and left < ttl then
    redis.pcall('PEXPIRE', lists .. list, ttl)
  end
  redis.pcall('HSET', batch, 'listed', list, 'timeline', with_line(held.timeline, now, what))
end

local function unlisted(batch)
  local held = redis.pcall('HMGET', batch, 'id', 'lane', 'listed')
  if held[1] and held[2] and held[3] and string.sub(batch, -#held[1] - 6) == 'batch:' .. held[1] then
    redis.pcall('ZREM', string.sub(batch, 1, -#held[1] - 7) .. 'lane_batches:' .. held[2] .. ':' .. held[3], held[1])
  end
end
