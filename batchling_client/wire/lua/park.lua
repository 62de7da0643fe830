-- Parks an account, or one lane of it: its key was refused. The refusal is kept, to be told without another call.
-- KEYS  1 circuit(circuit)
-- ARGV  1 pause_ms  2 status of HTTP  3 body, free of any credential  4 why, in one sentence
--       5 forget_ms: how long without a refusal until all is forgotten
-- Verdict  'OK'
--@include _clock
--@include _room
local circuit = KEYS[1]
local pause, status, body, why, forget_ms = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local now = now_ms()
go_on_when_full(circuit)
redis.call('HSET', circuit, 'until', now + pause, 'pause', pause, 'status', status, 'body', body, 'why', why)
redis.call('HSETNX', circuit, 'since', now)
redis.call('HINCRBY', circuit, 'n_refused', 1)
redis.call('HDEL', circuit, 'trial_until')
redis.call('PEXPIRE', circuit, pause + forget_ms)
return 'OK'
