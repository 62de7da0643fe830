-- Remembers some of the requests of a submitted file, in the file's order, for as long as their run is kept.
-- KEYS  1 run_requests
-- ARGV  1 number of the chunk, from 0  2 packed chunk  3 n_requests in the whole file  4 keep_ms
-- Verdicts  'OK'; said again, it changes nothing
local run_requests = KEYS[1]
local number, packed, n_requests, keep_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
redis.call('HSET', run_requests, number, packed, 'n', n_requests)
redis.call('PEXPIRE', run_requests, keep_ms)
return 'OK'
