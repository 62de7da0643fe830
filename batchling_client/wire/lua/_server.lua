-- server_id(): names this run of Redis; another one, after a restart or a fail-over, has another name. '' where INFO
-- is not permitted.
-- may_be_forgotten(batch): whether a provider may have a batch of it that this run of Redis knows nothing of, as another
-- run had opened it.
local function server_id()
  local told = redis.pcall('INFO', 'server')
  return type(told) == 'string' and string.match(told, 'run_id:(%x+)') or ''
end

local function may_be_forgotten(batch)
  local server = redis.pcall('HGET', batch, 'server')
  if type(server) ~= 'string' or server == '' then
    return false
  end
  local here = server_id()
  return here ~= '' and here ~= server
end
