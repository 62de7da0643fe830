-- Claims files that are due to be deleted: each is due again after a pause, unless it is taken out before.
-- KEYS  1 spent_files
-- ARGV  1 most: how many  2 pause_ms
-- Verdict  a list of members, `inputs:` or `results:` and a batch id
--@include _clock
--@include _sound
local spent, most, pause_ms = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
if not of_type(spent, 'zset') then
  return {}
end
local now = now_ms()
local due = redis.call('ZRANGE', spent, '-inf', now, 'BYSCORE', 'LIMIT', 0, most)
for i = 1, #due do
  redis.call('ZADD', spent, 'XX', now + pause_ms, due[i])
end
return due
