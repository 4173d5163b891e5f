class AddProfileColumnsToAccounts < ActiveRecord::Migration[7.2]
  def change
    change_table :accounts, bulk: true do |t|
      t.integer :feature_approval_policy, null: false, default: 0
      t.string :avatar_description, :header_description, null: false, default: ""
      t.boolean :show_media, :show_media_replies, :show_featured, null: false, default: true
      t.string :collections_url
    end
  end
end
