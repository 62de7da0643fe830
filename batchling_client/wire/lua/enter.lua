-- Asks whether an account may be called. Where a circuit is open, nobody may; when its time is over, one at a time may try.
-- KEYS  for each of circuits: circuit; the account's first; the first that is open answers
-- ARGV  1 trial_ms: how long a trial keeps others out  2 longest_ms: longest time until a look at a trial
-- Verdicts  {'OK', '1' = its end must be told: failures were counted, or it is the trial}
--       {'OPEN', wait ms, why}
--       {'PARKED', wait ms, why, status, body, refusals in a row, ms since the first of them}
--@include _clock
--@include _room
local trial_ms, longest = tonumber(ARGV[1]), tonumber(ARGV[2])
local now, counted, trials = now_ms(), '', {}
for i = 1, #KEYS do
  local f = redis.call('HMGET', KEYS[i], 'until', 'trial_until', 'pause', 'why', 'status', 'body', 'n_refused', 'since')
  if f[1] then
    local left = tonumber(f[1]) - now
    if left > 0 and f[5] then
      return {'PARKED', left, f[4], f[5], f[6], tonumber(f[7]), now - tonumber(f[8])}
    end
    if left > 0 then
      return {'OPEN', left, f[4]}
    end
    if f[2] and tonumber(f[2]) > now then
      return {'OPEN', math.min(longest, math.max(1000, math.floor(tonumber(f[3]) / 4))), f[4]}
    end
    trials[#trials + 1] = KEYS[i]
  end
  if f[1] or redis.call('EXISTS', KEYS[i]) == 1 then
    counted = '1'
  end
end
for _, circuit in ipairs(trials) do
  go_on_when_full(circuit)
  redis.call('HSET', circuit, 'trial_until', now + trial_ms)
end
return {'OK', counted}
