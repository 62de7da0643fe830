-- Needs _sound.
-- recount(batch, n): so many requests of a reopened batch, which were counted as failed or as moved on, are so no longer.
local function recount(batch, n)
  for _, field in ipairs({'n_failed', 'n_requeued'}) do
    local counted = math.max(0, tonumber(redis.call('HGET', batch, field) or '') or 0)
    local taken = math.min(counted, n)
    if taken > 0 then
      count(batch, field, -taken)
      n = n - taken
    end
  end
end
