class AddThumbnailSchemaVersionToMediaAttachments < ActiveRecord::Migration[7.2]
  def change
    add_column :media_attachments, :thumbnail_storage_schema_version, :integer
  end
end
