# The directory must exist in every release. This one has no work after deployment.
class NothingLeftToDo < ActiveRecord::Migration[7.2]
  def up; end
  def down; end
end
