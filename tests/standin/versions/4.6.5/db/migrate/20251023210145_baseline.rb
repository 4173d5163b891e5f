# Where the stand-in's history begins. There is no way here from nothing: an empty database gets db/schema.rb.
class Baseline < ActiveRecord::Migration[7.2]
  def up
    raise "this database is older than 4.5.15 or empty: use db:prepare"
  end
end
