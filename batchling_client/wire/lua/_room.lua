-- go_on_when_full(hash): Redis out of memory refuses the first write of a script that takes memory, and no later one.
-- A move that leads to memory being freed must not be refused, so it begins with a write that takes none.
local function go_on_when_full(hash)
  redis.pcall('HDEL', hash, '')
end
