-- Needs _request.
-- What runs count of their requests' fates, beside the list of their requests, and lanes in all and by the minute. Only
--   people read it: what is damaged of it must not cost a request, so nothing here raises.
-- add_to(sums, waiting, field, n): adds n to what the runs of `waiting` are to count under that name.
-- count_for_runs(sums, batch, id): adds the sums to the runs' records, found from the key and the id of any batch.
-- count_for_lane(counts, batch, id, now, minute_ms): adds the counts, by their names, to the record of the batch's lane and,
--   as `LANE|name`, to the present minute, which is kept that long.
-- leave_runs(waiting, batch, id, request): lists a withdrawn request with each of its runs.
-- name_run(batch, held, run): names a run in the record of a batch with requests of it; `held` = the runs named there.
--   The first 100 are named; '+' behind them stands for more.
local function add_to(sums, waiting, field, n)
  local fields = sums[waiting]
  if not fields then
    fields = {}
    sums[waiting] = fields
  end
  fields[field] = (fields[field] or 0) + n
end

local function prefix_of(batch, id)
  return string.sub(batch, 1, -#id - #'batch:' - 1)
end

local function count_for_runs(sums, batch, id)
  for waiting, fields in pairs(sums) do
    for _, run in ipairs(runs_of(waiting)) do
      local key = prefix_of(batch, id) .. 'run:' .. run
      -- A run that is forgotten stays so: a new record would have no lifetime.
      if redis.call('EXISTS', key) == 1 then
        for field, n in pairs(fields) do
          redis.pcall('HINCRBY', key, field, n)
        end
      end
    end
  end
end

local function count_for_lane(counts, batch, id, now, minute_ms)
  local lane_id, prefix = redis.pcall('HGET', batch, 'lane'), prefix_of(batch, id)
  if type(lane_id) ~= 'string' or not next(counts) then
    return
  end
  local lane, minute = prefix .. 'lane:' .. lane_id, prefix .. 'minute:' .. string.format('%d', math.floor(now / 60000))
  local known = redis.call('EXISTS', lane) == 1
  for name, n in pairs(counts) do
    if known then
      redis.pcall('HINCRBY', lane, name, n)
    end
    redis.pcall('HINCRBY', minute, lane_id .. '|' .. name, n)
  end
  redis.pcall('PEXPIRE', minute, minute_ms)
end

local MOST_RUNS = 100

local function name_run(batch, held, run)
  held = type(held) == 'string' and held or ''
  if string.find(held, run, 1, true) or string.sub(held, -1) == '+' then
    return held
  end
  local _, n = string.gsub(held, ',', '')
  held = held == '' and run or held .. ',' .. (n + 1 < MOST_RUNS and run or '+')
  redis.pcall('HSET', batch, 'runs', held)
  return held
end

local function leave_runs(waiting, batch, id, request)
  local prefix = prefix_of(batch, id)
  for _, run in ipairs(runs_of(waiting)) do
    local key = prefix .. 'run_withdrawn:' .. run
    redis.pcall('SADD', key, string.sub(request, #prefix + #'request:' + 1))
    -- A run that is forgotten has no lifetime left, and its list goes with it.
    redis.pcall('PEXPIRE', key, redis.call('PTTL', prefix .. 'run:' .. run))
  end
  count_for_runs({[waiting] = {n_withdrawn = 1}}, batch, id)
end
