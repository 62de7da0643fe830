-- Drops a stored result that cannot be an answer, so that the request is sent again.
-- KEYS  1 result
-- ARGV  1 packed: the result as it was read
-- Verdicts  'OK' dropped  'GONE' another result, or none, is there now: nothing was done
local result, seen = KEYS[1], ARGV[1]
if redis.pcall('GET', result) ~= seen then
  return 'GONE'
end
redis.call('UNLINK', result)
return 'OK'
