-- server_id(): names this run of Redis; another one, after a restart or a fail-over, has another name. '' where INFO
-- is not permitted.
local function server_id()
  local told = redis.pcall('INFO', 'server')
  return type(told) == 'string' and string.match(told, 'run_id:(%x+)') or ''
end
