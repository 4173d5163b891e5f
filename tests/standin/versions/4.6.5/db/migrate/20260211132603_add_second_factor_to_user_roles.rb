class AddSecondFactorToUserRoles < ActiveRecord::Migration[7.2]
  def change
    change_table :user_roles, bulk: true do |t|
      t.boolean :require_2fa, null: false, default: false
      t.integer :collection_limit, null: false, default: 10
    end
  end
end
