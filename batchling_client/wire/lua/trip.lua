-- Counts a failed call of an account; enough of them in a row open its circuit, and a trial that fails opens it for longer.
-- KEYS  1 circuit(circuit)
-- ARGV  1 opens_after: failures in a row  2 pause.first_ms: first ceiling of the pause  3 pause.longest_ms: last ceiling
--       4 pause.shortest_ms  5 pause.millionths: the draw, where between 0 and the ceiling the pause lies
--       6 pause.wish_ms: what the provider asks for  7 why, in one sentence
--       8 forget_ms: how long without a failure until all is forgotten
-- Verdict  ms until it may be tried, 0 = it is not open
--@include _clock
--@include _room
local circuit = KEYS[1]
local opens_after, first, longest, shortest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local draw, wish, why, forget_ms = tonumber(ARGV[5]) / 1000000, tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8])
local now = now_ms()
go_on_when_full(circuit)
local n = redis.call('HINCRBY', circuit, 'n_failures', 1)
local held_until = tonumber(redis.call('HGET', circuit, 'until') or '0')
local pause = 0
if held_until > now then
  -- One of those that were under way when it opened.
  pause = math.max(held_until - now, wish)
elseif held_until > 0 or n >= opens_after then
  local n_opened = redis.call('HINCRBY', circuit, 'n_opened', 1)
  local ceiling = math.min(longest, first * 2 ^ math.min(n_opened - 1, 20))
  pause = math.floor(math.max(shortest, draw * ceiling, wish))
end
if pause > 0 then
  redis.call('HSET', circuit, 'until', now + pause, 'pause', pause, 'why', why)
  redis.call('HDEL', circuit, 'trial_until')
end
redis.call('PEXPIRE', circuit, pause + forget_ms)
return pause
