-- Says that a worker lives, when Redis is full too: it is the workers who free its memory.
-- KEYS  1 worker  2 workers
-- ARGV  1 name of the worker  2 presence (JSON)  3 keep_ms of the presence  4 keep_list_ms
-- Verdict  'OK'
--@include _clock
local worker, workers = KEYS[1], KEYS[2]
local name, presence, keep_ms, keep_list_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local now = now_ms()
-- First, as it takes no memory: a full Redis refuses the first write of a script that does, and no later one.
redis.call('ZREMRANGEBYSCORE', workers, '-inf', now - keep_ms)
redis.call('SET', worker, presence, 'PX', keep_ms)
redis.call('ZADD', workers, now, name)
redis.call('PEXPIRE', workers, keep_list_ms)
return 'OK'
