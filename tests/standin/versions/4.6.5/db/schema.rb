require_relative "tables"

ActiveRecord::Schema[7.2].define(version: 2026_06_11_150940) do
  Tables.new(connection).load
end
